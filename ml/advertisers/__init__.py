"""The advertiser model: which advertisers a user converts with next. The item model's encoder and training."""
