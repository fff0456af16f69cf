package cmd

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/price"
)

func (a *app) newPrice() *cobra.Command {
	c := &cobra.Command{
		Use:   "price",
		Short: "Show and refresh the prices that plans and reports count with",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.newPriceShow(), a.newPriceRefresh())
	return c
}

// onePrice is a price of a table, as people read it.
type onePrice struct {
	Item string  `json:"item"` // volume type, or snapshot
	Per  string  `json:"per"`  // unit
	From int32   `json:"from,omitempty"`
	USD  float64 `json:"usd"`
}

// pricesOf lists a table's prices, types in the order of their names.
func pricesOf(t price.Table) []onePrice {
	var out []onePrice
	for _, name := range sortedKeys(t.Types) {
		p := t.Types[name]
		out = append(out, onePrice{name, "GiB-month", 0, p.GiB})
		for _, tiers := range []struct {
			per string
			all []plan.Tier
		}{{"IOPS-month", p.IOPS}, {"MiB/s-month", p.MiBs}} {
			for _, tier := range tiers.all {
				out = append(out, onePrice{name, tiers.per, tier.From, tier.Each})
			}
		}
	}
	return append(out, onePrice{"snapshot", "GiB-month", 0, t.SnapshotGiBMonth})
}

// key is what a price is for.
func (p onePrice) key() string { return fmt.Sprintf("%s %s %d", p.Item, p.Per, p.From) }

func (p onePrice) above() string {
	if p.From == 0 {
		return ""
	}
	return strconv.Itoa(int(p.From))
}

func usdText(usd float64) string { return strconv.FormatFloat(usd, 'f', -1, 64) }

// oldPrices is when prices should be refreshed.
const oldPrices = 180

// ageDays of prices with a date; one in the future has none.
func ageDays(date string, now time.Time) int {
	day, err := time.Parse(time.DateOnly, date)
	if err != nil {
		return 0 // price.Load has checked it
	}
	return max(0, int(now.Sub(day).Hours()/24))
}
