"""What each verb does: takes values, returns values, prints nothing."""
