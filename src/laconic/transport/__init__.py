"""Links to a broker (MQTT, in memory) and the driver that runs a Node over one in real time."""
