"""What keeps an instance going: health checks, restarts, a start at boot, and the secrets that its starts need."""
