"""What leaves for the auditor: checkpoints, anchors, evidence files, and reading the chain about them."""
