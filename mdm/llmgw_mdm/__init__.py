"""What IT pushes: from one file about the organisation to every profile and policy, and what of it is in force."""
