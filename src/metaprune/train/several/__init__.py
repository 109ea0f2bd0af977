"""What several processes need to train one network: they are started, and divide data, batches and weights."""
