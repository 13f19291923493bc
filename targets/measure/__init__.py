"""How what goes to a device is measured: latency, parity, the host it ran on."""
