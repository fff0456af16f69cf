package ec2

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"go.temporal.io/sdk/activity"
)

// once keeps the SDK from repeating a call that has no client token, unless EC2
// said that it did nothing: what a failed one has done is looked for before the
// next.
func once(o *ec2.Options) {
	o.Retryer = retry.NewStandard(func(s *retry.StandardOptions) {
		s.Retryables = []retry.IsErrorRetryable{retry.RetryableErrorCode{Codes: retry.DefaultThrottleErrorCodes}}
	})
}

// repeated says that this may be the second run of an activity: what the first
// one did may not show in describes yet.
func repeated(ctx context.Context) bool {
	return !activity.IsActivity(ctx) || activity.GetInfo(ctx).Attempt > 1
}
