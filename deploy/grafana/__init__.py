"""Grafana: dashboards as code, and what makes a Grafana find them."""
