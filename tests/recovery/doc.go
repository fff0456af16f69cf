// Package recovery runs the commands of docs/recovery.md, as they stand there, in
// a node, on disks that the agent's code made. It has no code of its own.
package recovery
