"""What the server says about itself: logs and metrics. No room's logic lives here."""
