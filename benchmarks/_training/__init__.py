"""Parts of the training benchmark: what runs in processes of its own, and what starts it."""
