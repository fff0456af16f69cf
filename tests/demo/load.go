package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/ebb-storage/ebb/tests/acked"
	"github.com/ebb-storage/ebb/tests/lab"
	"github.com/ebb-storage/ebb/tests/node"
)

// sets are the directories of acknowledged files, each with its journal.
var sets = []string{"fill", "live"}

// journal lies on the host, where a power cut of the node does not reach it.
func (d *demo) journal(set string) string {
	return filepath.Join(d.Nodes[0].Dir(), set+".journal")
}

// share gives the second node a copy of the journals at the same name.
func (d *demo) share() error {
	for _, set := range sets {
		b, err := os.ReadFile(d.journal(set))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(d.Nodes[1].Dir(), set+".journal"), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writer is an ackwriter in a node.
type writer struct {
	p      node.Process
	set    string
	out    *bytes.Buffer
	status string
}

func (d *demo) startWriter(ctx context.Context, i int, set string) (*writer, error) {
	w := &writer{set: set, out: &bytes.Buffer{}, status: filepath.Join(d.Nodes[i].Dir(), set+".status")}
	p, err := d.Nodes[i].Start(context.WithoutCancel(ctx), node.Command{
		Path: d.Bin("ackwriter"), Args: []string{"write", mountPath + "/" + set, d.journal(set), "-pause", "5ms", "-status", w.status}, Stdout: w.out, Stderr: w.out,
	})
	w.p = p
	return w, err
}

// stats adds what a writer saw so far; one that ended by itself has failed.
func (w *writer) stats(s *summary) error {
	select {
	case <-w.p.Done():
		return fmt.Errorf("the writer ended: %s", w.out)
	default:
	}
	b, err := os.ReadFile(w.status)
	if err != nil {
		return err
	}
	return s.add(w.set, b)
}

// stop ends a writer and adds what it saw.
func (w *writer) stop(s *summary) error {
	if err := w.p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	code, err := w.p.Wait()
	if err != nil || code != 0 {
		return errors.Join(fmt.Errorf("the writer ended with %d: %s", code, w.out), err)
	}
	return s.add(w.set, w.out.Bytes())
}

// add adds what the writer of a set saw.
func (s *summary) add(set string, b []byte) error {
	var st acked.Stats
	if err := json.Unmarshal(b, &st); err != nil {
		return fmt.Errorf("writer: %w: %s", err, b)
	}
	s.Failed += st.Failed
	if set != "fill" {
		s.stalls = append(s.stalls, st.Stalls...)
	}
	if set == "fill" {
		s.StallFillingMS = max(s.StallFillingMS, st.LongestStallMS)
	}
	return nil
}

// longestStall looks for the longest wait of a writer that Ebb is answerable for.
// The emulator stops the whole node while it copies a volume for a snapshot, which
// EBS does not: a wait that such a stop cut into is not counted, and reported
// apart.
func (s *summary) longestStall(pauses []node.Pause) {
	for _, p := range pauses {
		s.EmulatorPauseMS = max(s.EmulatorPauseMS, p.End.Sub(p.Begin).Milliseconds())
	}
	s.LongestStallMS = s.StallFillingMS
	for _, st := range s.stalls {
		stopped := slices.ContainsFunc(pauses, func(p node.Pause) bool {
			return st.Begin.Before(p.End) && st.Begin.Add(st.Took).After(p.Begin)
		})
		if ms := st.Took.Milliseconds(); !stopped && ms > s.LongestStallMS {
			s.LongestStallMS, s.stallAt = ms, st.Begin
		}
	}
}

// writeAll writes acknowledged files until the writer is done.
func (d *demo) writeAll(ctx context.Context, set, flags string) error {
	out, err := d.Sh(ctx, 0, fmt.Sprintf("%s write %s/%s %s %s", d.Bin("ackwriter"), mountPath, set, d.journal(set), flags))
	if err != nil {
		return err
	}
	return d.sum.add(set, []byte(out))
}

// check reads every acknowledged write back. The last check is the one that
// counts how many there were.
func (d *demo) check(ctx context.Context, i int, interim bool) error {
	var sum acked.Report
	for _, set := range sets {
		out, err := d.Sh(ctx, i, fmt.Sprintf("echo 3 > /proc/sys/vm/drop_caches; %s check %s/%s %s || true", d.Bin("ackwriter"), mountPath, set, filepath.Join(d.Nodes[i].Dir(), set+".journal")))
		if err != nil {
			return err
		}
		line, _, _ := strings.Cut(out, "\n")
		var r acked.Report
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return fmt.Errorf("check %s: %w: %s", set, err, out)
		}
		sum.Acked += r.Acked
		sum.Bytes += r.Bytes
		d.sum.Lost += r.Lost
		d.sum.Wrong += r.Wrong
		sum.Details = append(sum.Details, r.Details...)
	}
	d.say("  %d acknowledged writes, %d MiB, read back and right; lost or wrong: %d", sum.Acked, sum.Bytes>>20, d.sum.Lost+d.sum.Wrong)
	if !interim {
		d.sum.Acked = sum.Acked
	}
	if d.sum.Lost+d.sum.Wrong > 0 {
		return fmt.Errorf("acknowledged writes are lost or wrong on %s: %s", lab.NodeID(i), strings.Join(sum.Details, "; "))
	}
	return nil
}

// postgres is a PostgreSQL cluster with data checksums on the disk.
type postgres struct {
	d   *demo
	bin string
	job node.Process
}

const pgRun = "exec setpriv --reuid=postgres --regid=postgres --init-groups env -i LC_ALL=C PATH=%s:/usr/bin:/bin sh -ec '%s'"

func (pg *postgres) sh(ctx context.Context, i int, script string) (string, error) {
	return pg.d.Sh(ctx, i, fmt.Sprintf(pgRun, pg.bin, script))
}

const (
	pgData = mountPath + "/pg"
	// The socket lies beside the data: the node's /tmp is its own.
	pgOpts = "-c listen_addresses= -c unix_socket_directories=" + pgData + " -c shared_buffers=64MB -c max_wal_size=128MB -c checkpoint_timeout=30s"
	psql   = "psql -h " + pgData + " -d postgres -XAtq"
)

// startPostgres makes the cluster with some hundred thousand rows.
func (d *demo) startPostgres(ctx context.Context) (*postgres, error) {
	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(bins) == 0 {
		return nil, errors.New("PostgreSQL is not installed: run make setup, or apt-get install postgresql")
	}
	pg := &postgres{d: d, bin: filepath.Dir(bins[len(bins)-1])}
	d.say("starting PostgreSQL on the disk, with data checksums, and pgbench on it")
	if _, err := d.Sh(ctx, 0, fmt.Sprintf("mkdir -p /dev/shm; mountpoint -q /dev/shm || mount -t tmpfs tmpfs /dev/shm; install -d -o postgres -g postgres -m 0700 %s", pgData)); err != nil {
		return nil, err
	}
	if _, err := pg.sh(ctx, 0, "initdb -k -A trust -U postgres -D "+pgData); err != nil {
		return nil, err
	}
	if err := pg.start(ctx, 0); err != nil {
		return nil, err
	}
	_, err = pg.sh(ctx, 0, "pgbench -q -i -s 3 -h "+pgData+" postgres")
	return pg, err
}

// start starts the server, which recovers if it must.
func (pg *postgres) start(ctx context.Context, i int) error {
	if _, err := pg.d.Sh(ctx, i, "mkdir -p /dev/shm; mountpoint -q /dev/shm || mount -t tmpfs tmpfs /dev/shm"); err != nil {
		return err
	}
	_, err := pg.sh(ctx, i, fmt.Sprintf(`rm -f %s/postmaster.pid; pg_ctl -s -w -t 120 -D %s -l %s/log -o "%s" start`, pgData, pgData, pgData, pgOpts))
	return err
}

// load runs pgbench until the node or the server stops.
func (pg *postgres) load(ctx context.Context, i int) (err error) {
	pg.job, err = pg.d.Nodes[i].Start(context.WithoutCancel(ctx), node.Command{
		Path: "sh", Args: []string{"-ec", fmt.Sprintf(pgRun, pg.bin, "pgbench -n -c 2 -T 3600 -h "+pgData+" postgres > "+pgData+"/pgbench.log 2>&1")},
	})
	return err
}

// stop ends the load, which must have run without an error, and the server.
func (pg *postgres) stop(ctx context.Context, i int) error {
	select {
	case <-pg.job.Done():
		out, _ := pg.d.Sh(ctx, i, "tail -5 "+pgData+"/pgbench.log")
		return fmt.Errorf("pgbench ended: %s", out)
	default:
	}
	if _, err := pg.d.Sh(ctx, i, "pkill -INT -x pgbench"); err != nil {
		return err
	}
	if _, err := pg.job.Wait(); err != nil {
		return err
	}
	_, err := pg.sh(ctx, i, "pg_ctl -s -w -m fast -D "+pgData+" stop")
	return err
}

// verify checks every page's checksum, every index, and that money was neither
// made nor lost: pgbench keeps four sums equal.
func (pg *postgres) verify(ctx context.Context, i int) (string, error) {
	out, err := pg.sh(ctx, i, "pg_checksums --check -D "+pgData)
	if err != nil {
		return "", err
	}
	var pages string
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(line, "Blocks scanned:"); ok {
			pages = strings.TrimSpace(rest)
		}
	}
	if err := pg.start(ctx, i); err != nil {
		return "", err
	}
	if _, err := pg.sh(ctx, i, psql+` -c "create extension if not exists amcheck" -c "select bt_index_check(oid, true) from pg_class where relname like \$\$pgbench%_pkey\$\$"`); err != nil {
		return "", err
	}
	sums, err := pg.sh(ctx, i, psql+` -c "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history) and (select sum(bbalance) from pgbench_branches) = (select sum(tbalance) from pgbench_tellers) and (select sum(abalance) from pgbench_accounts) = (select sum(bbalance) from pgbench_branches), (select count(*) from pgbench_history)"`)
	if err != nil {
		return "", err
	}
	ok, n, _ := strings.Cut(strings.TrimSpace(sums), "|")
	if ok != "t" {
		return "", fmt.Errorf("pgbench's sums differ: %s", sums)
	}
	if _, err := pg.sh(ctx, i, "pg_ctl -s -w -m fast -D "+pgData+" stop"); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s pages' checksums, all indexes and the sums of %s transactions are right", pages, n), nil
}
