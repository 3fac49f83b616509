"""Jobs for `ray job submit`, one short file each."""
