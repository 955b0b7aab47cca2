"""What production needs, as code: dashboards, rules, detections and the configuration around them.

`python -m dashboards` renders what is made of code; dashboards/README.md says what is where.
"""
