"""What one example is: 128 samples of six axes at 50 Hz, and one of six activities."""

ACTIVITIES = ("walking", "upstairs", "downstairs", "sitting", "standing", "laying")
STEPS, CHANNELS = 128, 6
SAMPLE_S = 1 / 50
STEP_S = STEPS / 2 * SAMPLE_S
"""Windows overlap by half."""
