// Package agent is the logic of Ebb's node agent: it serves the node activities
// of package contract, watches the disks of its node and asks for growth before
// a pool is full, as their policies want it, gives back what was deleted on them,
// measures usage, and tells people and probes how it is doing.
//
// It does not touch devices: whatever changes a disk is behind the Disks
// interface. It holds no AWS credentials and has no way to use any; the only
// AWS code it reaches is the instance metadata client, for the node's name.
package agent
