"""The sections of reports, a file for each subject: what it computes, says and draws."""
