// Package replay proves that today's workflows still understand yesterday's
// histories, and records such histories.
//
// history/ holds one JSON file per story, recorded from released code, never
// from the branch under test. Record them from a running Temporal with
//
//	go run ./tests/replay/record --out tests/replay/history --name v0.1.0 disk/d-...
//
// or, without a kernel, from the stories of this package with
//
//	EBB_RECORD=tests/replay/history/v0.1.0 go test ./tests/replay -run TestStories
//
// history/v0 is from before the first release and may be recorded anew until
// then; what a release has recorded is never touched again.
//
// The stories run the real workflows and the real EC2 activities against
// Temporal's dev server, the EC2 simulator and nodes in memory.
package replay
