// Package ui writes what the ebb command shows: data as table, JSON or YAML on
// one stream, talk and bars on another. It knows terminals and nothing of
// Temporal.
package ui
