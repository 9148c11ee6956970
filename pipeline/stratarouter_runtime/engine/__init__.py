"""What happens to one request, whatever carried it here."""
