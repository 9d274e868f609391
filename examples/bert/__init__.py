"""The reference workload: pre-train, fine-tune, evaluate and serve a BERT classifier, and compare the joules of each."""
