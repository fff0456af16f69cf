// Package format is Ebb's on-volume format: where each area of a volume lies,
// the header that makes a volume self-describing, the usage history ring and
// the dirty-region log of a move. It turns structs into bytes and back and does
// no I/O. docs/format.md describes the same bytes for people.
//
// All integers are little-endian, all checksums CRC-32C (Castagnoli).
package format
