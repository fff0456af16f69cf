package cmd

import (
	"cmp"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/price"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/pricelist"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

type priceShowOptions struct{ region, file string }

// shownPrices is the data of ebb price show.
type shownPrices struct {
	File    string         `json:"file,omitempty"`
	BuiltIn bool           `json:"builtIn"`
	Regions []regionPrices `json:"regions"`
}

type regionPrices struct {
	Region  string     `json:"region"`
	Date    string     `json:"date"`
	Source  string     `json:"source"`
	AgeDays int        `json:"ageDays"`
	Old     bool       `json:"old"` // refresh it
	Prices  []onePrice `json:"prices"`
}

func (a *app) newPriceShow() *cobra.Command {
	var o priceShowOptions
	c := &cobra.Command{
		Use:   "show",
		Short: "Show the prices in force, with their date and source",
		Long: `Show prices of EBS: those that are built in, or those of a file that ebb price
refresh wrote. FROM is where a price begins: a gp3 volume's first 3000 IOPS and
125 MiB/s come with it, io2's IOPS have tiers.

Prices older than 180 days are warned of.`,
		Example: "  ebb price show --region us-east-1\n  ebb price show --file prices.json -o json",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return a.runPriceShow(o, time.Now()) },
	}
	c.Flags().StringVar(&o.region, "region", "", "this region alone")
	c.Flags().StringVar(&o.file, "file", "", "price list file instead of the built-in one")
	return c
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func (a *app) runPriceShow(o priceShowOptions, now time.Time) error {
	book, err := readBook(o.file)
	if err != nil {
		return err
	}
	out := shownPrices{File: o.file, BuiltIn: o.file == "", Regions: []regionPrices{}}
	for _, region := range sortedKeys(book.Regions) {
		if o.region != "" && o.region != region {
			continue
		}
		t, _ := book.In(region)
		age := ageDays(t.Date, now)
		out.Regions = append(out.Regions, regionPrices{
			Region: region, Date: t.Date, Source: t.Source, AgeDays: age, Old: age > oldPrices, Prices: pricesOf(t),
		})
	}
	if len(out.Regions) == 0 {
		return exit.New(exit.NotFound, "there are no prices of region %q in %s; it has %s",
			o.region, cmp.Or(o.file, "the built-in list"), strings.Join(sortedKeys(book.Regions), ", ")).
			WithNext("ebb price refresh --region %s --out %s", cmp.Or(o.region, price.DefaultRegion), cmp.Or(o.file, "prices.json"))
	}
	if err := a.output.Print(a.streams.Out, out, func(w io.Writer) error { return priceTable(w, out) }); err != nil {
		return err
	}
	a.warnOfOld(out)
	return nil
}

// readBook is the built-in list, or a file's.
func readBook(file string) (price.Book, error) {
	if file == "" {
		return price.BuiltIn(), nil
	}
	b, err := pricelist.Load(file)
	if err != nil {
		return b, exit.New(exit.Usage, "").Because(err).WithNext("ebb price refresh --region %s --out FILE writes such a file", price.DefaultRegion)
	}
	return b, nil
}

func priceTable(w io.Writer, s shownPrices) error {
	for i, r := range s.Regions {
		if i > 0 {
			if _, err := io.WriteString(w, "\n"); err != nil {
				return err
			}
		}
		date := r.Date
		if s.BuiltIn {
			date += ", built in"
		}
		if err := ui.Fields(w, ui.Field{Name: "region", Value: r.Region}, ui.Field{Name: "date", Value: date}, ui.Field{Name: "source", Value: r.Source}); err != nil {
			return err
		}
		rows := make([][]string, 0, len(r.Prices))
		for _, p := range r.Prices {
			rows = append(rows, []string{p.Item, p.Per, p.above(), usdText(p.USD)})
		}
		if err := ui.Table(w, []string{"ITEM", "PER", ">FROM", ">USD"}, rows); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) warnOfOld(s shownPrices) {
	var old []string
	most := 0
	for _, r := range s.Regions {
		if r.Old {
			old, most = append(old, r.Region), max(most, r.AgeDays)
		}
	}
	if len(old) == 0 {
		return
	}
	a.streams.Say("%s the prices of %s are up to %d days old", a.streams.Paint(a.streams.Err, ui.Warn, "warning:"), ui.Clean(strings.Join(old, ", ")), most)
	a.streams.Say("next: ebb price refresh --region %s --out %s", ui.Clean(strings.Join(old, ",")), ui.Clean(cmp.Or(s.File, "prices.json")))
}
