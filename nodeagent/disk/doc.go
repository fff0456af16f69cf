// Package disk is Ebb's data plane on a node: it formats volumes, assembles
// disks from their headers, measures, trims, grows and expands them, and moves a
// disk live from one backing to another.
//
// A Manager keeps nothing on the node. What it knows it reads from the headers
// on the volumes and from the kernel's device-mapper tables, so every method can
// be repeated, by this process or by the next one, on this node or another. What a
// policy wants of a disk (Guide) is told to it, and holds until the process ends. The
// invariants I1 to I6 of docs/design.md are kept here; the code that keeps one
// names it.
//
// It does not talk to EC2 or to Temporal.
package disk
