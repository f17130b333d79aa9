"""The scenarios, a module per group: functions of a bench. What they have in common lies beside them."""
