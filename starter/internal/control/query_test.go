package control

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// forgetful loses the first questions.
type forgetful struct {
	client.Client
	lose, asked int
	workers     []*taskqueuepb.PollerInfo
}

func (f *forgetful) QueryWorkflow(context.Context, string, string, string, ...any) (converter.EncodedValue, error) {
	f.asked++
	if f.asked <= f.lose {
		return nil, serviceerror.NewDeadlineExceeded("query timed out before a worker could process it")
	}
	p, err := converter.GetDefaultDataConverter().ToPayloads("here")
	return client.NewValue(p), err
}

func (f *forgetful) DescribeTaskQueue(context.Context, string, enumspb.TaskQueueType) (*workflowservice.DescribeTaskQueueResponse, error) {
	return &workflowservice.DescribeTaskQueueResponse{Pollers: f.workers}, nil
}

func TestLostQuestionIsPutAgain(t *testing.T) {
	here := []*taskqueuepb.PollerInfo{{LastAccessTime: timestamppb.Now()}}
	for name, x := range map[string]struct {
		lose, asked int
		workers     []*taskqueuepb.PollerInfo
		ok          bool
	}{
		"answered":     {0, 1, here, true},
		"lost once":    {1, 2, here, true},
		"never heard":  {9, queryTries, here, false},
		"nobody there": {9, 1, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := &forgetful{lose: x.lose, workers: x.workers}
			c := &Client{temporal: f}
			var out string
			err := c.query(t.Context(), "id", "", "proposal", &out)
			require.Equal(t, x.ok, err == nil, "%v", err)
			require.Equal(t, x.asked, f.asked)
			if x.ok {
				require.Equal(t, "here", out)
			}
		})
	}
}
