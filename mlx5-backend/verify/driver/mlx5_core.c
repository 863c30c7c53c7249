// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/* The stand-ins that are declared in mlx5_core.h. */
#include <mlx5_core.h>
#include <linux/mlx5/cq.h>

#include "harness.h"

static struct device bus_device;
static struct mlx5_hca_cap general, general_2, virtualization;
static struct mlx5_core_dev core = {
	.device = &bus_device,
	.caps.hca = {
		[MLX5_CAP_GENERAL] = &general,
		[MLX5_CAP_GENERAL_2] = &general_2,
		[MLX5_CAP_ADV_VIRTUALIZATION] = &virtualization,
	},
};

/* ---- Commands ---- */

/* Every output begins with its status. */
static u8 status_of(const void *out)
{
	return *(const u8 *)out;
}

static int status_errno(u8 status)
{
	switch (status) {
	case MLX5_CMD_STAT_OK:
		return 0;
	case MLX5_CMD_STAT_RES_BUSY:
		return -EBUSY;
	case MLX5_CMD_STAT_LIM_ERR:
		return -ENOMEM;
	case MLX5_CMD_STAT_IX_ERR:
	case MLX5_CMD_STAT_BAD_OP_ERR:
	case MLX5_CMD_STAT_BAD_PARAM_ERR:
	case MLX5_CMD_STAT_BAD_RES_ERR:
	case MLX5_CMD_STAT_BAD_RES_STATE_ERR:
	case MLX5_CMD_STAT_BAD_QP_STATE_ERR:
	case MLX5_CMD_STAT_BAD_PKT_ERR:
	case MLX5_CMD_STAT_BAD_SIZE_OUTS_CQES_ERR:
		return -EINVAL;
	case MLX5_CMD_STAT_NO_RES_ERR:
	case MLX5_CMD_STAT_NOT_READY:
		return -EAGAIN;
	default:
		return -EIO;
	}
}

static int exec(void *in, int in_size, void *out, int out_size, int how)
{
	int err;

	kernel_might_sleep("mlx5_cmd_exec()");
	err = harness_command(in, in_size, out, out_size, 0, how);
	return err ? err : status_errno(status_of(out));
}

int mlx5_cmd_exec(struct mlx5_core_dev *dev, void *in, int in_size, void *out, int out_size)
{
	return exec(in, in_size, out, out_size, COMMAND_SYNC);
}

void mlx5_cmd_out_err(struct mlx5_core_dev *dev, u16 opcode, u16 op_mod, void *out)
{
}

/* The callbacks run in an interrupt, in the order in which the tester completes the commands. */
static struct list_head in_flight = { &in_flight, &in_flight };
static u64 last_id;

void mlx5_cmd_init_async_ctx(struct mlx5_core_dev *dev, struct mlx5_async_ctx *ctx)
{
	*ctx = (struct mlx5_async_ctx){ .dev = dev, .inflight = 1 };
}

static void one_less(struct mlx5_async_ctx *ctx)
{
	if (!--ctx->inflight)
		complete(&ctx->drained);
}

void mlx5_cmd_cleanup_async_ctx(struct mlx5_async_ctx *ctx)
{
	one_less(ctx);
	wait_for_completion(&ctx->drained);
}

int mlx5_cmd_exec_cb(struct mlx5_async_ctx *ctx, void *in, int in_size, void *out, int out_size,
		     mlx5_async_cbk_t callback, struct mlx5_async_work *work)
{
	int err;

	if (!ctx->inflight)
		kernel_fatal("mlx5_cmd_exec_cb() in a context that was cleaned up");
	ctx->inflight++;
	*work = (struct mlx5_async_work){ ctx, callback, out, out_size, ++last_id };
	list_add_tail(&work->in_flight, &in_flight);
	kernel_stats.async++;
	err = harness_command(in, in_size, out, out_size, work->id, COMMAND_ASYNC);
	if (err) {
		list_del(&work->in_flight);
		kernel_stats.async--;
		one_less(ctx);
	}
	return err;
}

int mlx5_core_complete(u64 id, int delivery, const void *out, size_t out_size)
{
	struct mlx5_async_work *work, *next;

	list_for_each_entry_safe(work, next, &in_flight, in_flight) {
		struct mlx5_async_ctx *ctx = work->ctx;

		if (work->id != id)
			continue;
		list_del(&work->in_flight);
		kernel_stats.async--;
		memcpy(work->out, out, min(out_size, (size_t)work->out_size));
		if (!delivery && status_of(work->out) != MLX5_CMD_STAT_OK)
			delivery = -EREMOTEIO;
		kernel_in_interrupt++;
		work->callback(delivery, work);
		kernel_in_interrupt--;
		one_less(ctx);
		return 0;
	}
	return -ENOENT;
}

/* ---- The PF ---- */

struct mlx5_core_dev *mlx5_vf_get_core_dev(struct pci_dev *vf)
{
	return &core;
}

static void read_capability(u16 type, struct mlx5_hca_cap *into)
{
	u32 out[MLX5_ST_SZ_DW(query_hca_cap_out)] = {};
	u32 in[MLX5_ST_SZ_DW(query_hca_cap_in)] = {};

	MLX5_SET(query_hca_cap_in, in, opcode, MLX5_CMD_OP_QUERY_HCA_CAP);
	MLX5_SET(query_hca_cap_in, in, op_mod, type << 1 | HCA_CAP_OPMOD_GET_CUR);
	/* A PF that does not know a type has none of its capabilities. */
	if (!exec(in, sizeof(in), out, sizeof(out), COMMAND_OF_CORE))
		memcpy(into->cur, MLX5_ADDR_OF(query_hca_cap_out, out, capability),
		       sizeof(into->cur));
}

void mlx5_core_read_capabilities(void)
{
	read_capability(MLX5_CAP_GENERAL, &general);
	read_capability(MLX5_CAP_GENERAL_2, &general_2);
	read_capability(MLX5_CAP_ADV_VIRTUALIZATION, &virtualization);
}

int mlx5_sriov_blocking_notifier_register(struct mlx5_core_dev *dev, int vf,
					  struct notifier_block *block)
{
	dev->sriov = block;
	return 0;
}

void mlx5_sriov_blocking_notifier_unregister(struct mlx5_core_dev *dev, int vf,
					     struct notifier_block *block)
{
	dev->sriov = NULL;
}

int mlx5_core_notify(unsigned long event)
{
	return core.sriov ? core.sriov->notifier_call(core.sriov, event, NULL) : -ENODEV;
}

int mlx5_vport_get_other_func_cap(struct mlx5_core_dev *dev, u16 function, void *out, u16 type)
{
	u32 in[MLX5_ST_SZ_DW(query_hca_cap_in)] = {};

	MLX5_SET(query_hca_cap_in, in, opcode, MLX5_CMD_OP_QUERY_HCA_CAP);
	MLX5_SET(query_hca_cap_in, in, op_mod, type << 1 | HCA_CAP_OPMOD_GET_MAX);
	MLX5_SET(query_hca_cap_in, in, function_id, function);
	MLX5_SET(query_hca_cap_in, in, other_function, 1);
	return mlx5_cmd_exec_inout(dev, query_hca_cap, in, out);
}

/* ---- What has a name in the firmware ---- */

int mlx5_core_alloc_pd(struct mlx5_core_dev *dev, u32 *pd)
{
	u32 out[MLX5_ST_SZ_DW(alloc_pd_out)] = {};
	u32 in[MLX5_ST_SZ_DW(alloc_pd_in)] = {};
	int err;

	MLX5_SET(alloc_pd_in, in, opcode, MLX5_CMD_OP_ALLOC_PD);
	err = mlx5_cmd_exec_inout(dev, alloc_pd, in, out);
	if (!err)
		*pd = MLX5_GET(alloc_pd_out, out, pd);
	return err;
}

int mlx5_core_dealloc_pd(struct mlx5_core_dev *dev, u32 pd)
{
	u32 in[MLX5_ST_SZ_DW(dealloc_pd_in)] = {};

	MLX5_SET(dealloc_pd_in, in, opcode, MLX5_CMD_OP_DEALLOC_PD);
	MLX5_SET(dealloc_pd_in, in, pd, pd);
	return mlx5_cmd_exec_in(dev, dealloc_pd, in);
}

int mlx5_core_create_mkey(struct mlx5_core_dev *dev, u32 *mkey, u32 *in, int in_size)
{
	u32 out[MLX5_ST_SZ_DW(create_mkey_out)] = {};
	int err;

	MLX5_SET(create_mkey_in, in, opcode, MLX5_CMD_OP_CREATE_MKEY);
	err = mlx5_cmd_exec(dev, in, in_size, out, sizeof(out));
	if (!err)
		*mkey = MLX5_GET(create_mkey_out, out, mkey_index) << 8 |
			MLX5_GET(create_mkey_in, in, memory_key_mkey_entry.mkey_7_0);
	return err;
}

int mlx5_core_destroy_mkey(struct mlx5_core_dev *dev, u32 mkey)
{
	u32 in[MLX5_ST_SZ_DW(destroy_mkey_in)] = {};

	MLX5_SET(destroy_mkey_in, in, opcode, MLX5_CMD_OP_DESTROY_MKEY);
	MLX5_SET(destroy_mkey_in, in, mkey_index, mkey >> 8);
	return mlx5_cmd_exec_in(dev, destroy_mkey, in);
}

/* ---- What the page tracker needs ---- */

static struct page *one_page(void)
{
	struct page *page = NULL;

	alloc_pages_bulk_array(0, 1, &page);
	return page;
}

static dma_addr_t map(struct page *page)
{
	memset(kmap_local_page(page), 0, PAGE_SIZE);
	return dma_map_page(core.device, page, 0, PAGE_SIZE, DMA_BIDIRECTIONAL);
}

static void unmap(struct page *page, dma_addr_t dma)
{
	dma_unmap_single(core.device, dma, PAGE_SIZE, DMA_BIDIRECTIONAL);
	__free_page(page);
}

struct mlx5_uars_page *mlx5_get_uars_page(struct mlx5_core_dev *dev)
{
	u32 out[MLX5_ST_SZ_DW(alloc_uar_out)] = {};
	u32 in[MLX5_ST_SZ_DW(alloc_uar_in)] = {};
	struct mlx5_uars_page *uar = kzalloc(sizeof(*uar), 0);
	int err;

	if (!uar)
		return ERR_PTR(-ENOMEM);
	MLX5_SET(alloc_uar_in, in, opcode, MLX5_CMD_OP_ALLOC_UAR);
	err = mlx5_cmd_exec_inout(dev, alloc_uar, in, out);
	if (err) {
		kfree(uar);
		return ERR_PTR(err);
	}
	uar->index = dev->uar = MLX5_GET(alloc_uar_out, out, uar);
	/* Where a doorbell rings that nobody hears: the tester sees the record in memory. */
	uar->map = uar->doorbell;
	return uar;
}

void mlx5_put_uars_page(struct mlx5_core_dev *dev, struct mlx5_uars_page *uar)
{
	u32 in[MLX5_ST_SZ_DW(dealloc_uar_in)] = {};

	MLX5_SET(dealloc_uar_in, in, opcode, MLX5_CMD_OP_DEALLOC_UAR);
	MLX5_SET(dealloc_uar_in, in, uar, uar->index);
	mlx5_cmd_exec_in(dev, dealloc_uar, in);
	kfree(uar);
}

int mlx5_db_alloc_node(struct mlx5_core_dev *dev, struct mlx5_db *db, int node)
{
	db->page = one_page();
	if (!db->page)
		return -ENOMEM;
	db->dma = map(db->page);
	db->db = kmap_local_page(db->page);
	return 0;
}

void mlx5_db_free(struct mlx5_core_dev *dev, struct mlx5_db *db)
{
	unmap(db->page, db->dma);
}

int mlx5_frag_buf_alloc_node(struct mlx5_core_dev *dev, int size, struct mlx5_frag_buf *buf,
			     int node)
{
	int npages = DIV_ROUND_UP(size, PAGE_SIZE);

	*buf = (struct mlx5_frag_buf){ kzalloc(npages * sizeof(*buf->frags), 0), 0, PAGE_SHIFT };
	if (!buf->frags)
		return -ENOMEM;
	for (; buf->npages < npages; buf->npages++) {
		struct mlx5_buf_list *frag = &buf->frags[buf->npages];

		frag->page = one_page();
		if (!frag->page) {
			mlx5_frag_buf_free(dev, buf);
			return -ENOMEM;
		}
		frag->dma = map(frag->page);
		frag->buf = kmap_local_page(frag->page);
	}
	return 0;
}

void mlx5_frag_buf_free(struct mlx5_core_dev *dev, struct mlx5_frag_buf *buf)
{
	for (int i = 0; i < buf->npages; i++)
		unmap(buf->frags[i].page, buf->frags[i].dma);
	kfree(buf->frags);
}

void mlx5_fill_page_frag_array(struct mlx5_frag_buf *buf, __be64 *addresses)
{
	for (int i = 0; i < buf->npages; i++)
		addresses[i] = cpu_to_be64(buf->frags[i].dma);
}

/* One page of events that nobody reads: who waits for one is told by the tester. */
int mlx5_comp_eqn_get(struct mlx5_core_dev *dev, u16 vector, int *eqn)
{
	u8 in[MLX5_ST_SZ_BYTES(create_eq_in) + sizeof(__be64)] __attribute__((aligned(8))) = {};
	u32 out[MLX5_ST_SZ_DW(create_eq_out)] = {};
	void *context = MLX5_ADDR_OF(create_eq_in, in, eq_context_entry);
	int err;

	dev->eq.page = one_page();
	if (!dev->eq.page)
		return -ENOMEM;
	dev->eq.dma = map(dev->eq.page);
	MLX5_SET(create_eq_in, in, opcode, MLX5_CMD_OP_CREATE_EQ);
	MLX5_SET(eqc, context, log_eq_size, PAGE_SHIFT - 6);
	MLX5_SET(eqc, context, uar_page, dev->uar);
	*(__be64 *)MLX5_ADDR_OF(create_eq_in, in, pas) = cpu_to_be64(dev->eq.dma);
	err = mlx5_cmd_exec(dev, in, sizeof(in), out, sizeof(out));
	if (err) {
		unmap(dev->eq.page, dev->eq.dma);
		return err;
	}
	*eqn = dev->eq.number = MLX5_GET(create_eq_out, out, eq_number);
	return 0;
}

static void put_eq(struct mlx5_core_dev *dev)
{
	u32 in[MLX5_ST_SZ_DW(destroy_eq_in)] = {};

	MLX5_SET(destroy_eq_in, in, opcode, MLX5_CMD_OP_DESTROY_EQ);
	MLX5_SET(destroy_eq_in, in, eq_number, dev->eq.number);
	mlx5_cmd_exec_in(dev, destroy_eq, in);
	unmap(dev->eq.page, dev->eq.dma);
}

int mlx5_core_create_cq(struct mlx5_core_dev *dev, struct mlx5_core_cq *cq, u32 *in, int in_size,
			u32 *out, int out_size)
{
	int err;

	memset(out, 0, out_size);
	MLX5_SET(create_cq_in, in, opcode, MLX5_CMD_OP_CREATE_CQ);
	err = mlx5_cmd_exec(dev, in, in_size, out, out_size);
	if (err) {
		put_eq(dev);
		return err;
	}
	cq->cqn = MLX5_GET(create_cq_out, out, cqn);
	return 0;
}

int mlx5_core_destroy_cq(struct mlx5_core_dev *dev, struct mlx5_core_cq *cq)
{
	u32 in[MLX5_ST_SZ_DW(destroy_cq_in)] = {};
	int err;

	MLX5_SET(destroy_cq_in, in, opcode, MLX5_CMD_OP_DESTROY_CQ);
	MLX5_SET(destroy_cq_in, in, cqn, cq->cqn);
	err = mlx5_cmd_exec_in(dev, destroy_cq, in);
	put_eq(dev);
	return err;
}

void mlx5_eq_notifier_register(struct mlx5_core_dev *dev, struct mlx5_nb *block)
{
	dev->events = block;
}

void mlx5_eq_notifier_unregister(struct mlx5_core_dev *dev, struct mlx5_nb *block)
{
	dev->events = NULL;
}

void mlx5_core_object_change(u32 id)
{
	struct mlx5_eqe eqe = {};

	eqe.data.obj_change.obj_id = cpu_to_be32(id);
	kernel_in_interrupt++;
	if (core.events)
		core.events->nb.notifier_call(&core.events->nb, MLX5_EVENT_TYPE_OBJECT_CHANGE, &eqe);
	kernel_in_interrupt--;
}
