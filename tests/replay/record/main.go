// Record saves histories of a running Temporal for the replay tests:
//
//	go run ./tests/replay/record --out tests/replay/history --name v0.1.0-demo disk/d-0123456789abcdef0 ...
//
// Every closed run of each workflow id is saved. Without ids every closed
// operation on a disk is. Temporal is reached as its environment variables say.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"

	"github.com/ebb-storage/ebb/tests/replay"
)

func main() {
	out := flag.String("out", "tests/replay/history", "directory to write to")
	name := flag.String("name", "", "prefix of the file names, such as the release")
	limit := flag.Int("limit", 200, "at most so many histories")
	flag.Parse()
	if err := record(*out, *name, *limit, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
}

func record(out, name string, limit int, ids []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	o, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		return err
	}
	c, err := client.Dial(o)
	if err != nil {
		return err
	}
	defer c.Close()
	queries := []string{"(WorkflowId STARTS_WITH 'disk/' OR WorkflowId STARTS_WITH 'retire/') AND ExecutionStatus != 'Running'"}
	if len(ids) > 0 {
		queries = nil
		for _, id := range ids {
			queries = append(queries, fmt.Sprintf("WorkflowId = '%s' AND ExecutionStatus != 'Running'", id))
		}
	}
	saved := 0
	for _, q := range queries {
		var page []byte
		for {
			list, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: q, NextPageToken: page})
			if err != nil {
				return err
			}
			for _, e := range list.Executions {
				if saved == limit {
					return nil
				}
				h, err := replay.Fetch(ctx, c, e.Execution.WorkflowId, e.Execution.RunId)
				if err != nil {
					return err
				}
				path, err := replay.Save(h, out, fmt.Sprintf("%s-%s-%s", name, e.Type.Name, e.Execution.RunId[:8]))
				if err != nil {
					return err
				}
				fmt.Printf("%s: %d events\n", path, len(h.Events))
				saved++
			}
			if page = list.NextPageToken; len(page) == 0 {
				break
			}
		}
	}
	return nil
}
