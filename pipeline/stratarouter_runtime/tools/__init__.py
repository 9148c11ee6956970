"""What operators do with records that are there already: replay, resend, ask what if. The command line calls these."""
