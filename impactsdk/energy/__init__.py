"""From a device's counter to the joules of a region; small and pure but for the sampler."""
