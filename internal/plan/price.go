package plan

import "time"

// Month is what a month of a price list is: 730 hours.
const Month = 730 * time.Hour

// Prices are one region's, in USD. internal/price loads and refreshes them.
type Prices struct {
	Region string                `json:"region,omitempty"`
	Date   string                `json:"date,omitempty"`   // when they were entered or read, 2006-01-02
	Source string                `json:"source,omitempty"` // where
	Types  map[string]TypePrices `json:"types"`
	// SnapshotGiBMonth of the standard tier.
	SnapshotGiBMonth float64 `json:"snapshotGiBMonth"`
	// CopyGiB is what copying a GiB costs beside the volumes; 0 in EBS's list.
	CopyGiB float64 `json:"copyGiB,omitempty"`
}

// TypePrices of a volume type, per month.
type TypePrices struct {
	GiB float64 `json:"gib"`
	// IOPS each, in tiers by ascending From; the first begins above what comes
	// with the volume.
	IOPS []Tier `json:"iops,omitempty"`
	MiBs []Tier `json:"mibs,omitempty"`
}

// Tier is a price for each unit above From.
type Tier struct {
	From int32   `json:"from"`
	Each float64 `json:"each"`
}

func tiered(tiers []Tier, n int32) float64 {
	var usd float64
	for i, t := range tiers {
		end := n
		if i+1 < len(tiers) {
			end = min(n, tiers[i+1].From)
		}
		if end > t.From {
			usd += float64(end-t.From) * t.Each
		}
	}
	return usd
}

// VolumeMonth is what a volume costs a month; a type without a price costs 0.
func (p Prices) VolumeMonth(v Volume) float64 {
	t := p.Types[v.Type]
	return float64(v.GiB)*t.GiB + tiered(t.IOPS, v.IOPS) + tiered(t.MiBs, v.ThroughputMiBs)
}

// BackingMonth is what a disk's volumes cost a month.
func (p Prices) BackingMonth(vs []Volume) float64 {
	var usd float64
	for _, v := range vs {
		usd += p.VolumeMonth(v)
	}
	return usd
}

// For is a monthly price's share of a time.
func For(usdMonth float64, d time.Duration) float64 { return usdMonth * d.Hours() / Month.Hours() }
