// Sui's own TypeScript SDK against the stand-in for a full node: what it reads by gRPC and by
// JSON-RPC is what happened on the chain. Arguments: the two URLs, and the facts in JSON.

import assert from 'node:assert/strict';
import { bcs } from '@mysten/sui/bcs';
import { SuiGrpcClient } from '@mysten/sui/grpc';
import { SuiJsonRpcClient } from '@mysten/sui/jsonRpc';
import { deriveDynamicFieldID, normalizeStructTag } from '@mysten/sui/utils';

const [grpcUrl, jsonRpcUrl, facts] = process.argv.slice(2);
const { package: pkg, registry, table, token, owner, slashed } = JSON.parse(facts);
const grpc = new SuiGrpcClient({ network: 'localnet', baseUrl: grpcUrl });
const rpc = new SuiJsonRpcClient({ network: 'localnet', url: jsonRpcUrl });

const WorkerNode = bcs.struct('WorkerNode', {
	node_id: bcs.string(),
	owner: bcs.Address,
	stake_amount: bcs.u64(),
	status: bcs.string(),
	seal_token: bcs.string(),
	join_token: bcs.string(),
	registered_at: bcs.u64(),
	last_heartbeat: bcs.u64(),
	total_pods_served: bcs.u64(),
	reputation_score: bcs.u64(),
});
const SealToken = bcs.struct('SealToken', {
	id: bcs.Address,
	owner: bcs.Address,
	stake_id: bcs.Address,
	expires_at: bcs.u64(),
});
const name = { type: '0x1::string::String', bcs: bcs.string().serialize('w1').toBytes() };

async function objects() {
	const include = { content: true, json: true, previousTransaction: true };
	const { object } = await grpc.core.getObject({ objectId: token, include });
	const parsed = SealToken.parse(object.content);
	assert.equal(parsed.owner, owner);
	assert.equal(parsed.expires_at, '4102444800000');
	assert.equal(object.json.stake_id, parsed.stake_id);
	assert.equal(object.type, `${pkg}::seal_token::SealToken`);
	assert.equal(object.owner.AddressOwner, owner);
	const there = await grpc.core.getObjects({ objectIds: [registry, '0x123'] });
	assert.equal(there.objects[0].objectId, registry);
	assert.ok(there.objects[1] instanceof Error);

	const same = await rpc.getObject({
		id: token,
		options: { showContent: true, showOwner: true, showType: true, showBcs: true },
	});
	assert.equal(same.data.digest, object.digest);
	assert.equal(same.data.version, object.version);
	assert.equal(same.data.content.fields.stake_id, parsed.stake_id);
	assert.deepEqual(SealToken.parse(Buffer.from(same.data.bcs.bcsBytes, 'base64')), parsed);
	const missing = await rpc.getObject({ id: '0x123' });
	assert.equal(missing.error.code, 'notExists');
}

async function dynamicFields() {
	const { dynamicField } = await grpc.core.getDynamicField({ parentId: table, name });
	assert.equal(dynamicField.fieldId, deriveDynamicFieldID(table, name.type, name.bcs));
	const worker = WorkerNode.parse(dynamicField.value.bcs);
	assert.equal(worker.node_id, 'w1');
	assert.equal(worker.status, 'slashed');
	assert.equal(worker.owner, owner);
	const listed = await grpc.listDynamicFields({ parentId: table, limit: 1 });
	assert.equal(listed.dynamicFields.length, 1);
	assert.equal(listed.hasNextPage, true);
	const rest = await grpc.listDynamicFields({ parentId: table, cursor: listed.cursor });
	assert.equal(rest.hasNextPage, false);
	const ids = [...listed.dynamicFields, ...rest.dynamicFields].map((it) => it.fieldId);
	assert.ok(ids.includes(dynamicField.fieldId));

	const same = await rpc.getDynamicFieldObject({
		parentId: table,
		name: { type: name.type, value: 'w1' },
	});
	assert.equal(same.data.objectId, dynamicField.fieldId);
	assert.equal(same.data.content.fields.value.fields.stake_amount, worker.stake_amount);
	const page = await rpc.getDynamicFields({ parentId: table });
	assert.deepEqual(page.data.map((it) => it.name.value).sort(), ['w1', 'w2']);
}

async function transactions() {
	const include = { effects: true, events: true, transaction: true };
	const result = await grpc.core.getTransaction({ digest: slashed, include });
	const transaction = result.Transaction;
	assert.equal(transaction.digest, slashed);
	assert.equal(transaction.status.success, true);
	assert.equal(transaction.events.length, 1);
	assert.equal(transaction.events[0].module, 'worker_registry');
	assert.ok(transaction.effects.changedObjects.some((it) => it.objectId === registry));

	const block = await rpc.getTransactionBlock({
		digest: slashed,
		options: { showEffects: true, showEvents: true, showInput: true, showObjectChanges: true },
	});
	assert.equal(block.effects.status.status, 'success');
	assert.equal(block.events[0].parsedJson.new_status, 'slashed');
	assert.equal(block.objectChanges.length, transaction.effects.changedObjects.length);
}

async function events() {
	const eventType = `${pkg}::worker_registry::WorkerStatusChangedEvent`;
	const found = await grpc.core.listEvents({ filter: { eventType } });
	assert.equal(found.events.length, 1);
	assert.equal(found.events[0].json.new_status, 'slashed');
	assert.equal(found.events[0].transactionDigest, slashed);
	assert.equal(found.events[0].eventType, normalizeStructTag(eventType));
	const all = [];
	let after = null;
	for (;;) {
		const page = await grpc.core.listEvents({ limit: 2, after });
		all.push(...page.events);
		if (!page.hasNextPage) break;
		after = page.endCursor;
	}

	const same = [];
	let cursor = null;
	for (;;) {
		const page = await rpc.queryEvents({ query: { All: [] }, cursor, limit: 2, order: 'ascending' });
		same.push(...page.data);
		cursor = page.nextCursor;
		if (!page.hasNextPage) break;
	}
	assert.equal(same.length, 5);
	assert.deepEqual(
		all.map((it) => [it.transactionDigest, String(it.eventIndex)]),
		same.map((it) => [it.id.txDigest, it.id.eventSeq]),
	);
	assert.deepEqual(all.map((it) => it.json), same.map((it) => it.parsedJson));
}

async function checkpoints() {
	const number = await rpc.getLatestCheckpointSequenceNumber();
	const checkpoint = await rpc.getCheckpoint({ id: number });
	const { response } = await grpc.ledgerService.getCheckpoint({
		checkpointId: { oneofKind: 'sequenceNumber', sequenceNumber: BigInt(number) },
		readMask: { paths: ['digest', 'summary', 'signature', 'contents'] },
	});
	assert.equal(response.checkpoint.digest, checkpoint.digest);
	assert.equal(response.checkpoint.contents.transactions[0].transaction, checkpoint.transactions[0]);
	const signature = Buffer.from(response.checkpoint.signature.signature).toString('base64');
	assert.equal(signature, checkpoint.validatorSignature);
	const { chainIdentifier } = await grpc.core.getChainIdentifier();
	assert.equal(chainIdentifier, (await rpc.getCheckpoint({ id: '0' })).digest);
}

for (const part of [objects, dynamicFields, transactions, events, checkpoints]) {
	await part();
	console.log(part.name);
}
console.log('ok');
