"""What leaves for the auditor: checkpoints, anchors, evidence, and how the chain is asked."""
