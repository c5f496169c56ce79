"""What a device may spend and what it has spent: rules that coordinator and device must apply alike."""
