package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/price"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/pricelist"
	"github.com/ebb-storage/ebb/starter/internal/size"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

type priceRefreshOptions struct {
	regions  []string
	out, url string
	dryRun   bool
}

// refreshedPrices is the data of ebb price refresh.
type refreshedPrices struct {
	File    string          `json:"file"`
	Written bool            `json:"written"`
	Regions []refreshedList `json:"regions"`
	Kept    []string        `json:"kept,omitempty"` // regions of the file that stay as they were
}

type refreshedList struct {
	Region  string        `json:"region"`
	Date    string        `json:"date"`
	Source  string        `json:"source"`
	Version string        `json:"version,omitempty"`
	Rows    int64         `json:"rows"`
	New     bool          `json:"new"` // the file did not have the region
	Changes []priceChange `json:"changes"`
	Notes   []string      `json:"notes,omitempty"`
}

// priceChange is a price that is not what the file had; nil where there is none.
type priceChange struct {
	Item string   `json:"item"`
	Per  string   `json:"per"`
	From int32    `json:"from,omitempty"`
	Old  *float64 `json:"old"`
	New  *float64 `json:"new"`
}

func (a *app) newPriceRefresh() *cobra.Command {
	var o priceRefreshOptions
	c := &cobra.Command{
		Use:   "refresh",
		Short: "Read prices from AWS's public price list into a file",
		Long: `Download AWS's public price list of EC2 in a region, take EBS's prices out of it
and keep them in a file. No credentials are needed. The list has hundreds of MB;
it is read as it comes and not stored.

Regions that the file has already are replaced, the others kept. When a price is
missing in the list, or there are two for the same thing, everything is refused
and the file stays as it was.

Give the file to the control worker with --prices or EBB_PRICES, and to
ebb simulate, ebb report and ebb policy explain with --prices.

--url is for a mirror; {region} in it stands for the region.`,
		Example: "  ebb price refresh --region eu-central-1,us-east-1 --out prices.json\n  ebb price refresh --region eu-central-1 --out prices.json --dry-run",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.runPriceRefresh(c.Context(), o) },
	}
	f := c.Flags()
	f.StringSliceVar(&o.regions, "region", nil, "regions, with commas between them")
	f.StringVar(&o.out, "out", "", "the file")
	f.StringVar(&o.url, "url", "", "where the list is (default AWS's public list)")
	f.BoolVar(&o.dryRun, "dry-run", false, "download and show what would change, and write nothing")
	_ = c.MarkFlagRequired("region")
	_ = c.MarkFlagRequired("out")
	return c
}

func (o *priceRefreshOptions) check() error {
	slices.Sort(o.regions)
	o.regions = slices.Compact(o.regions)
	if len(o.regions) == 0 {
		return exit.New(exit.Usage, "--region: want a region such as eu-central-1")
	}
	for _, region := range o.regions {
		if _, err := pricelist.ListURL(o.url, region); err != nil {
			return priceError(err, *o)
		}
	}
	if len(o.regions) > 1 && !pricelist.HasRegion(o.url) {
		return exit.New(exit.Usage, "--url is the same for %s", strings.Join(o.regions, " and ")).WithNext("write {region} where the region's name belongs")
	}
	if o.dryRun {
		return nil
	}
	if err := pricelist.CheckWritable(o.out); err != nil {
		return priceError(err, *o)
	}
	return nil
}

// runPriceRefresh looks at the file before the network: a download takes minutes.
func (a *app) runPriceRefresh(ctx context.Context, o priceRefreshOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	if _, err := pricelist.LoadOrNew(o.out); err != nil {
		return priceError(err, o)
	}
	var lists []pricelist.List
	for _, region := range o.regions {
		l, err := a.downloadPrices(ctx, o.url, region)
		if err != nil {
			return priceError(err, o)
		}
		lists = append(lists, l)
	}
	old, err := pricelist.LoadOrNew(o.out)
	if err != nil {
		return priceError(err, o)
	}
	out := refreshed(old, lists, o)
	if !o.dryRun {
		if err := pricelist.Save(o.out, pricelist.Merge(old, lists...)); err != nil {
			return priceError(err, o)
		}
		out.Written = true
	}
	if err := a.output.Print(a.streams.Out, out, func(w io.Writer) error { return refreshTable(w, out) }); err != nil {
		return err
	}
	a.saidOfRefresh(out)
	return nil
}

// downloadPrices shows a person how far it is.
func (a *app) downloadPrices(ctx context.Context, url, region string) (pricelist.List, error) {
	o := pricelist.Options{URL: url}
	if ui.IsTerminal(a.streams.Err) {
		w := ui.NewWatcher(a.streams.Err)
		defer w.Close()
		began := time.Now()
		var drawn time.Time
		o.Progress = func(done, total int64) {
			if time.Since(drawn) < 200*time.Millisecond {
				return
			}
			drawn = time.Now()
			w.Show(downloading(region, done, total, time.Since(began)))
		}
	}
	return pricelist.Download(ctx, region, o)
}

func downloading(region string, done, total int64, since time.Duration) ui.State {
	s := ui.State{Title: "prices of " + region, Phase: "download", MiBs: float64(done) / (1 << 20) / max(since.Seconds(), .001)}
	if total <= 0 {
		s.Note = size.Bytes(done)
		return s
	}
	s.Done, s.Total = done, total
	if done > 0 {
		s.ETA = time.Duration(float64(since) / float64(done) * float64(total-done))
	}
	return s
}

func refreshed(old price.Book, lists []pricelist.List, o priceRefreshOptions) refreshedPrices {
	out := refreshedPrices{File: o.out}
	for _, l := range lists {
		had, ok := old.Regions[l.Region]
		r := refreshedList{
			Region: l.Region, Date: l.Table.Date, Source: l.Table.Source, Version: l.Version,
			Rows: l.Rows, New: !ok, Notes: l.Notes, Changes: []priceChange{},
		}
		var before []onePrice
		if ok {
			before = pricesOf(had)
		}
		r.Changes = append(r.Changes, changesOf(before, pricesOf(l.Table))...)
		out.Regions = append(out.Regions, r)
	}
	for _, region := range sortedKeys(old.Regions) {
		if !slices.Contains(o.regions, region) {
			out.Kept = append(out.Kept, region)
		}
	}
	return out
}

func changesOf(before, after []onePrice) []priceChange {
	had := map[string]float64{}
	for _, p := range before {
		had[p.key()] = p.USD
	}
	var out []priceChange
	for _, p := range after {
		c := priceChange{Item: p.Item, Per: p.Per, From: p.From, New: &p.USD}
		if usd, ok := had[p.key()]; ok {
			delete(had, p.key())
			if usd == p.USD {
				continue
			}
			c.Old = &usd
		}
		out = append(out, c)
	}
	for _, p := range before {
		if _, gone := had[p.key()]; gone {
			out = append(out, priceChange{Item: p.Item, Per: p.Per, From: p.From, Old: &p.USD})
		}
	}
	return out
}

func refreshTable(w io.Writer, r refreshedPrices) error {
	var rows [][]string
	text := func(usd *float64) string {
		if usd == nil {
			return "-"
		}
		return usdText(*usd)
	}
	for _, l := range r.Regions {
		if len(l.Changes) == 0 {
			rows = append(rows, []string{l.Region, l.Date, "no change"})
		}
		for _, c := range l.Changes {
			rows = append(rows, []string{l.Region, l.Date, c.Item, c.Per, onePrice{From: c.From}.above(), text(c.Old), text(c.New)})
		}
	}
	return ui.Table(w, []string{"REGION", "DATE", "ITEM", "PER", ">FROM", ">OLD USD", ">NEW USD"}, rows)
}

func (a *app) saidOfRefresh(r refreshedPrices) {
	for _, l := range r.Regions {
		for _, note := range l.Notes {
			a.streams.Say("note: %s: %s in the list", l.Region, note)
		}
	}
	if len(r.Kept) > 0 {
		a.streams.Say("kept as they were: %s", ui.Clean(strings.Join(r.Kept, ", ")))
	}
	if r.Written {
		a.streams.Say("wrote %s", ui.Clean(r.File))
	} else {
		a.streams.Say("dry run: %s was not changed", ui.Clean(r.File))
	}
}

// priceError says what to do about an error.
func priceError(err error, o priceRefreshOptions) error {
	unchanged := fmt.Sprintf("; %s was not changed", o.out)
	failed := exit.New(exit.Failed, "").Because(err)
	switch {
	case errors.Is(err, context.Canceled):
		return exit.New(exit.Detached, "interrupted%s", unchanged) // 130, as Ctrl-C always is
	case errors.Is(err, pricelist.ErrURL):
		return exit.New(exit.Usage, "").Because(err).WithNext("ebb price refresh --help")
	case errors.Is(err, pricelist.ErrNoList):
		return failed.WithNext("check the region's name (aws ec2 describe-regions --all-regions lists them), the --url, and what a proxy lets through%s", unchanged)
	case errors.Is(err, pricelist.ErrDownload):
		return failed.WithNext("try again; a proxy is taken from HTTPS_PROXY, a mirror from --url%s", unchanged)
	case errors.Is(err, pricelist.ErrFormat):
		return failed.WithNext("open the address in a browser: a proxy or a login page may answer in the list's place%s", unchanged)
	case errors.Is(err, pricelist.ErrPrices):
		return exit.New(exit.Refused, "").Because(err).WithNext("try again later, AWS corrects its lists; a list may also be written by hand, see docs/policy.md%s", unchanged)
	case errors.Is(err, fs.ErrNotExist):
		return exit.New(exit.Usage, "--out").Because(err).WithNext("mkdir -p %s", filepath.Dir(o.out))
	case errors.Is(err, fs.ErrPermission):
		return exit.New(exit.Usage, "--out").Because(err).WithNext("give a file in a directory that you may write to")
	}
	return exit.New(exit.Usage, "--out").Because(err).WithNext("give another file, or move this one away")
}
