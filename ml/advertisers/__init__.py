"""The advertiser model: which advertisers a user converts with next. The items' towers and training, over advertisers."""
