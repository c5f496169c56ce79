"""Parts of the benchmark of the simulator."""
