"""The engines that stages run on: this process, or the machines of a Ray cluster."""
