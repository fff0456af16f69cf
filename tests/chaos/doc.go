// Package chaos crashes the whole of Ebb, part by part, and breaks EC2 and the
// volumes below it, while it grows and shrinks disks under a program that writes.
// It holds Ebb to what it promises: the operation ends as it should, every
// acknowledged write is there, no write fails, the filesystem checks clean, one
// generation is active, EC2 has no volume that nothing explains and no node a
// device it should not have.
//
// It has tests only. A scenario says what happens (strike) and when (moment) in
// which operation, on a disk of its own. The lanes of a run play scenarios at the
// same time, each lane on one lab, which it uses again as long as it passes.
//
// A short part runs by default, every step boundary with EBB_TEST_FULL=1.
// EBB_CHAOS_SEED chooses the random moments, EBB_CHAOS_RUN (a regular expression)
// the scenarios, EBB_CHAOS_LANES how many run at the same time. With EBB_CHAOS_DIR
// the labs are kept there: logs, consoles, histories.
package chaos
