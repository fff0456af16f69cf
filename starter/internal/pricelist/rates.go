package pricelist

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/price"
)

// measure is what a price is for.
type measure string

const (
	perGiB  measure = "GiB-month"
	perIOPS measure = "IOPS-month"
	perMiBs measure = "MiB/s-month"
)

// rate is a price that the table has a place for.
type rate struct {
	family string // the list's Product Family
	typ    string // volume type as the EC2 API calls it; "" for snapshots
	per    measure
	from   int32 // units up to here cost nothing, or what the tier before says
}

// What comes with every gp3 volume, and where io2's tiers begin. The list says
// neither: each tier is a product of its own.
const (
	gp3IOPS, gp3MiBs     = 3000, 125
	io2Second, io2Third  = 32000, 64000
	familyStorage        = "Storage"
	familyOperation      = "System Operation"
	familyThroughput     = "Provisioned Throughput"
	familySnapshot       = "Storage Snapshot"
	highestPrice         = 1000 // USD a month for a GiB, an IOPS or a MiB/s: it is another unit
	usageOfGP3           = "EBS:VolumeUsage.gp3"
	usageOfSnapshots     = "EBS:SnapshotUsage"
	usageOfGP3IOPS       = "EBS:VolumeP-IOPS.gp3"
	usageOfGP3Throughput = "EBS:VolumeP-Throughput.gp3"
)

// rates by usage type, without the region's prefix.
var rates = map[string]rate{
	"EBS:VolumeUsage":            {familyStorage, "standard", perGiB, 0},
	"EBS:VolumeUsage.gp2":        {familyStorage, "gp2", perGiB, 0},
	usageOfGP3:                   {familyStorage, "gp3", perGiB, 0},
	"EBS:VolumeUsage.piops":      {familyStorage, "io1", perGiB, 0},
	"EBS:VolumeUsage.io2":        {familyStorage, "io2", perGiB, 0},
	"EBS:VolumeUsage.st1":        {familyStorage, "st1", perGiB, 0},
	"EBS:VolumeUsage.sc1":        {familyStorage, "sc1", perGiB, 0},
	usageOfGP3IOPS:               {familyOperation, "gp3", perIOPS, gp3IOPS},
	"EBS:VolumeP-IOPS.piops":     {familyOperation, "io1", perIOPS, 0},
	"EBS:VolumeP-IOPS.io2":       {familyOperation, "io2", perIOPS, 0},
	"EBS:VolumeP-IOPS.io2.tier2": {familyOperation, "io2", perIOPS, io2Second},
	"EBS:VolumeP-IOPS.io2.tier3": {familyOperation, "io2", perIOPS, io2Third},
	usageOfGP3Throughput:         {familyThroughput, "gp3", perMiBs, gp3MiBs},
	usageOfSnapshots:             {familySnapshot, "", perGiB, 0},
}

// needed are the usage types that must have a price, each with its volume type:
// all of a type that has a price at all, and gp3 and snapshots always.
var needed = func() (order []string) {
	for usage := range rates {
		order = append(order, usage)
	}
	slices.Sort(order)
	return order
}()

// usage types outside us-east-1 begin with the region's: EUC1-EBS:..., EU-EBS:...
// Two of them (USW2-LAX1-EBS:...) are a local zone's.
var usagePrefix = regexp.MustCompile(`^[A-Z]+[0-9]*-`)

func withoutPrefix(usage string) string {
	return usage[len(usagePrefix.FindString(usage)):]
}

// found is a price and the row it comes from.
type found struct {
	usd float64
	sku string
}

// rowError is about a row.
func rowError(sku, format string, args ...any) error {
	return fmt.Errorf("%w: SKU %q: %s", ErrPrices, clip(sku), fmt.Sprintf(format, args...))
}

var decimal = regexp.MustCompile(`^[0-9]{1,9}(\.[0-9]{1,20})?$`)

// usdPer is a row's price for one unit of the table.
func usdPer(per measure, unit, text, sku string) (float64, error) {
	scale := 1.0
	switch u := strings.ToLower(unit); {
	case per == perGiB && (u == "gb-mo" || u == "gb-month"): // io2's is spelled out in some regions; EBS's GB are GiB
	case per == perIOPS && (u == "iops-mo" || u == "iops-month"):
	case per == perMiBs && u == "gibps-mo":
		scale = 1024
	case per == perMiBs && u == "mibps-mo":
	default:
		return 0, rowError(sku, "its unit is %q, which is no %s", clip(unit), per)
	}
	if !decimal.MatchString(text) {
		return 0, rowError(sku, "its price is %q", clip(text))
	}
	usd, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, rowError(sku, "its price is %q", clip(text))
	}
	if usd /= scale; usd > highestPrice {
		return 0, rowError(sku, "%v USD for one %s cannot be", usd, per)
	}
	return usd, nil
}

// collection gathers a list's prices.
type collection struct {
	prices map[string]found  // by usage type
	free   map[string]string // SKU of a row that costs nothing, by usage type
}

// add takes a row's price. The same price twice is one price.
func (c *collection) add(usage string, usd float64, sku string) error {
	if usd == 0 {
		c.free[usage] = strings.Clone(sku)
		return nil
	}
	if old, ok := c.prices[usage]; ok && old.usd != usd {
		return rowError(sku, "%s costs %v USD here and %v USD in SKU %q", usage, usd, old.usd, clip(old.sku))
	}
	if _, ok := c.prices[usage]; !ok {
		c.prices[usage] = found{usd: usd, sku: strings.Clone(sku)}
	}
	return nil
}

// table checks that nothing is missing. The notes name the volume types that the
// list does not have at all.
func (c *collection) table(region string) (t price.Table, notes []string, err error) {
	sold := map[string]string{"": "", "gp3": ""} // volume type: a SKU of it
	for usage, f := range c.prices {
		if typ := rates[usage].typ; sold[typ] == "" || f.sku < sold[typ] {
			sold[typ] = f.sku
		}
	}
	t.Types = map[string]plan.TypePrices{}
	var errs []error
	for _, usage := range needed {
		r := rates[usage]
		f, ok := c.prices[usage]
		sku, wanted := sold[r.typ]
		switch {
		case !ok && !wanted:
			continue
		case !ok:
			errs = append(errs, missing(region, usage, r, c.free[usage], sku))
			continue
		}
		v := t.Types[r.typ]
		switch {
		case r.typ == "":
			t.SnapshotGiBMonth = f.usd
			continue
		case r.per == perGiB:
			v.GiB = f.usd
		case r.per == perIOPS:
			v.IOPS = append(v.IOPS, plan.Tier{From: r.from, Each: f.usd}) // usage types sort as their tiers do
		case r.per == perMiBs:
			v.MiBs = append(v.MiBs, plan.Tier{From: r.from, Each: f.usd})
		}
		t.Types[r.typ] = v
	}
	if len(errs) > 0 {
		return price.Table{}, nil, errors.Join(errs...)
	}
	for _, usage := range needed {
		if r := rates[usage]; r.per == perGiB && r.typ != "" && t.Types[r.typ].GiB == 0 {
			notes = append(notes, "no prices of "+r.typ)
		}
	}
	return t, notes, nil
}

func missing(region, usage string, r rate, free, sku string) error {
	switch {
	case free != "":
		return rowError(free, "%s in %s costs nothing, and no other row has a price", usage, region)
	case sku != "":
		return rowError(sku, "a price of %s is here, but %s (%s, per %s) is missing", r.name(), usage, r.family, r.per)
	}
	return fmt.Errorf("%w: no price of %s in %s: usage type %s (%s, per %s) is missing", ErrPrices, r.name(), region, usage, r.family, r.per)
}

func (r rate) name() string {
	if r.typ == "" {
		return "snapshots"
	}
	return r.typ
}

// clip keeps what comes from outside short in messages.
func clip(s string) string {
	if r := []rune(strings.ToValidUTF8(s, "?")); len(r) > 60 {
		return string(r[:57]) + "..."
	}
	return strings.ToValidUTF8(s, "?")
}
