package contract_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
)

func TestFeedEndsBeforeTheRun(t *testing.T) {
	require.NoError(t, contract.RightsizeInput{Feed: contract.MaxFeed}.Validate())
	err := contract.RightsizeInput{Feed: contract.MaxFeed + time.Minute}.Validate()
	require.EqualError(t, err, "feed: 3h1m0s is too long: a run is ended after 4h, and looks at the fleet first; want at most 3h")
}
