"""Who may use which model, with which caps, and where a call goes. Pure."""
