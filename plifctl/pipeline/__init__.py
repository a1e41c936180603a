"""One module for each verb: functions that take values, return values and print nothing."""
