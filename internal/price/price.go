// Package price holds what EBS costs: a built-in list with its date, and its
// reading and writing as JSON, so that a fresher list can take its place. What is
// made of prices is internal/plan's matter.
package price

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/ebb-storage/ebb/internal/plan"
)

// Table is one region's prices.
type Table = plan.Prices

// DefaultRegion is the one whose prices stand in for a region that is not listed.
const DefaultRegion = "us-east-1"

// Book is the prices of several regions as of a day.
type Book struct {
	Date    string           `json:"date"` // when it was entered or published, 2006-01-02; the oldest, when regions have their own
	Source  string           `json:"source"`
	Regions map[string]Table `json:"regions"`
}

//go:embed builtin.json
var builtin []byte

// BuiltIn is the list Ebb comes with: the regions of the United States that share
// one price, entered by hand. It is a help for choosing, not an invoice.
func BuiltIn() Book {
	b, err := Load(builtin)
	if err != nil {
		panic(err) // a test reads it
	}
	return b
}

// Load reads a book. Unknown fields, regions without prices and prices that make
// no sense are refused.
func Load(data []byte) (Book, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var b Book
	if err := dec.Decode(&b); err != nil {
		return Book{}, fmt.Errorf("price list: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Book{}, errors.New("price list: something comes after the list")
	}
	if err := b.validate(); err != nil {
		return Book{}, fmt.Errorf("price list: %w", err)
	}
	return b, nil
}

func (b Book) validate() error {
	var errs []error
	if _, err := time.Parse(time.DateOnly, b.Date); err != nil {
		errs = append(errs, fmt.Errorf("date %q: want a day such as 2026-01-31", b.Date))
	}
	if len(b.Regions) == 0 {
		errs = append(errs, errors.New("no region"))
	}
	for _, region := range slices.Sorted(maps.Keys(b.Regions)) {
		t := b.Regions[region]
		if _, err := time.Parse(time.DateOnly, t.Date); err != nil && t.Date != "" {
			errs = append(errs, fmt.Errorf("%s: date %q: want a day such as 2026-01-31", region, t.Date))
		}
		if _, ok := t.Types["gp3"]; !ok {
			errs = append(errs, fmt.Errorf("%s: no price for gp3", region))
		}
		if t.SnapshotGiBMonth < 0 || t.CopyGiB < 0 {
			errs = append(errs, fmt.Errorf("%s: a price is negative", region))
		}
		for _, name := range slices.Sorted(maps.Keys(t.Types)) {
			if err := check(t.Types[name]); err != nil {
				errs = append(errs, fmt.Errorf("%s: %s: %w", region, name, err))
			}
		}
	}
	return errors.Join(errs...)
}

func check(t plan.TypePrices) error {
	if t.GiB <= 0 {
		return errors.New("gib: want more than 0")
	}
	for _, tiers := range [][]plan.Tier{t.IOPS, t.MiBs} {
		for i, tier := range tiers {
			if tier.Each < 0 || tier.From < 0 || i > 0 && tier.From <= tiers[i-1].From {
				return errors.New("tiers: want ascending from and prices of at least 0")
			}
		}
	}
	return nil
}

// JSON writes a book as Load reads it.
func (b Book) JSON() ([]byte, error) {
	data, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("price list: %w", err)
	}
	return append(data, '\n'), nil
}

// In is a region's prices, and whether the region is listed: if not, they are
// DefaultRegion's, of the built-in list when this one does not have that either.
// Their date and source are the region's own, else the book's.
func (b Book) In(region string) (Table, bool) {
	t, ok := b.Regions[region]
	if !ok {
		if _, listed := b.Regions[DefaultRegion]; !listed {
			b = BuiltIn()
		}
		region = DefaultRegion
		t = b.Regions[region]
	}
	t.Region, t.Date, t.Source = region, cmp.Or(t.Date, b.Date), cmp.Or(t.Source, b.Source)
	return t, ok
}
