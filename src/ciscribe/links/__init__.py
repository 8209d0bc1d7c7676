"""Which element serves which gene: contact and activity, models, experiments, and what joins them."""
