// Package monitoring holds docs/metrics.md, the alert rules and the dashboards
// against the metrics that the programs really register, and plays small series to
// the rules to see that they fire when they should and stay quiet when not.
//
// It reads PromQL by itself: a strict part of the language, so that what it accepts
// Prometheus does too. What a rule or dashboard needs beyond that is added here.
package monitoring
