"""What the device's benchmark is made of: a disk that can lose power, lives on it, an oracle."""
