package cmd

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/size"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

type diskHistoryOptions struct{ since size.DurationFlag }

// diskHistory is the data of disk history.
type diskHistory struct {
	Disk  contract.DiskID        `json:"disk"`
	Name  string                 `json:"name,omitempty"`
	Since time.Time              `json:"since"`
	Hours []contract.HistoryHour `json:"hours"`
}

func (a *app) newDiskHistory() *cobra.Command {
	o := diskHistoryOptions{since: size.DurationFlag(30 * 24 * time.Hour)}
	c := &cobra.Command{
		Use:   "history DISK",
		Short: "Show how a disk was used, day by day",
		Long: `Show how a disk was used: what was occupied of its backing, what was written, the
highest rates and how large the backing was. A disk keeps this itself, an hour a
record for 170 days, and takes it along from volume to volume; its node is asked
for it. Hours in which the disk was not measured are left out, and the present one
lags by up to ten minutes.

The table has a line for each day (UTC). BACKING is what it was at the day's end,
USED% the most that was occupied of the backing. JSON and YAML have the hours.`,
		Example:           "  ebb disk history data-1\n  ebb disk history data-1 --since 170d -o json",
		Args:              diskArg,
		ValidArgsFunction: a.completeDisk,
		RunE:              func(c *cobra.Command, args []string) error { return a.runDiskHistory(c.Context(), args[0], o) },
	}
	c.Flags().Var(&o.since, "since", "how far to look back")
	return c
}

func (a *app) runDiskHistory(ctx context.Context, ref string, o diskHistoryOptions) error {
	since := time.Now().Add(-time.Duration(o.since)).UTC().Truncate(time.Hour)
	return a.withDisk(ctx, ref, func(c *control.Client, d control.Disk) error {
		reports, err := c.Inspect(ctx, contract.InspectInput{Disk: d.ID, History: true, Since: since})
		if err != nil {
			return err
		}
		if len(reports) == 0 {
			return exit.New(exit.NotFound, "no disk %s", ref)
		}
		r := reports[0]
		if r.History == nil {
			return exit.New(exit.Failed, "the history of %s cannot be read: %s", d, unread(r)).WithNext("ebb disk show %s", d.Ref())
		}
		view := diskHistory{Disk: d.ID, Name: r.Facts.Name, Since: since, Hours: r.History.Hours}
		if len(view.Hours) == 0 {
			view.Hours = []contract.HistoryHour{}
			a.streams.Say("no history since %s", since.Format(time.DateTime))
		}
		return a.output.Print(a.streams.Out, view, func(w io.Writer) error { return historyTable(w, view.Hours) })
	})
}

// unread says why a report lacks the history that was asked for; a worker of an
// earlier version does not know the question.
func unread(r contract.DiskReport) string {
	if r.History == nil && r.Unread == "" {
		return "the control worker does not know how; its version is older"
	}
	return r.Unread
}

func historyTable(w io.Writer, hours []contract.HistoryHour) error {
	days := daysOf(hours)
	if len(days) == 0 {
		return nil
	}
	rows := make([][]string, 0, len(days))
	for _, d := range days {
		rows = append(rows, d.row())
	}
	return ui.Table(w, []string{
		"DAY", ">HOURS", ">USED MIN", ">USED MAX", ">FILES MAX", ">WRITTEN", ">PEAK IOPS", ">PEAK MIB/S", ">BACKING", ">USED%",
	}, rows)
}

// usageDay is a day's hours taken together.
type usageDay struct {
	contract.HistoryHour // its Hour is the day's begin, UTC

	hours    int
	fullness float64 // the most that was used of the backing, 0 to 1
}

// daysOf takes hours, oldest first, together by day.
func daysOf(hours []contract.HistoryHour) []usageDay {
	var days []usageDay
	for _, h := range hours {
		at := h.Hour.UTC().Truncate(24 * time.Hour)
		if len(days) == 0 || !days[len(days)-1].Hour.Equal(at) {
			days = append(days, usageDay{HistoryHour: contract.HistoryHour{Hour: at, UsedMinBytes: h.UsedMinBytes}})
		}
		d := &days[len(days)-1]
		d.hours++
		d.UsedMinBytes = min(d.UsedMinBytes, h.UsedMinBytes)
		d.UsedMaxBytes = max(d.UsedMaxBytes, h.UsedMaxBytes)
		d.FSUsedMaxBytes = max(d.FSUsedMaxBytes, h.FSUsedMaxBytes)
		d.WrittenBytes += h.WrittenBytes
		d.PeakIOPS = max(d.PeakIOPS, h.PeakIOPS)
		d.PeakMiBs = max(d.PeakMiBs, h.PeakMiBs)
		if h.BackingBytes > 0 {
			d.BackingBytes = h.BackingBytes
			d.fullness = max(d.fullness, float64(h.UsedMaxBytes)/float64(h.BackingBytes))
		}
	}
	return days
}

func (d usageDay) row() []string {
	files, backing, percent := "-", "-", "-"
	if d.FSUsedMaxBytes > 0 {
		files = size.Bytes(d.FSUsedMaxBytes)
	}
	if d.BackingBytes > 0 {
		backing, percent = size.Bytes(d.BackingBytes), fmt.Sprintf("%.0f%%", 100*d.fullness)
	}
	return []string{
		d.Hour.Format(time.DateOnly), fmt.Sprint(d.hours), size.Bytes(d.UsedMinBytes), size.Bytes(d.UsedMaxBytes), files,
		size.Bytes(d.WrittenBytes), number(d.PeakIOPS), number(d.PeakMiBs), backing, percent,
	}
}
