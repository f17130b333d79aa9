"""``edgegc doctor``: what this machine has and lacks, a finding for each question, with what to do. Changes nothing."""
